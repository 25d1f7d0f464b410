"""Pure decisions and the records they are made on: no I/O, no clock, no arrays, no engines."""
