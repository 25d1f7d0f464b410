"""What knows the engines: building an artifact for one (in a child process), and finding its native libraries.

This file and `closure` import no engine; `build` and everything below it run in the sandbox only.
"""

ENGINES = ("onnxruntime", "openvino")
