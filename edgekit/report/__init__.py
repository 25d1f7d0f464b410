"""What people read: terminal tables from records."""
