"""The loop ekrun is compared with: Python onnxruntime, the same artifact, feeds and threads, told `go N` as ekrun is.

python -m benchmarks.python_loop MODEL THREADS NAME=FILE.npy ...
"""

import json
import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    model, threads, *feeds = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = {name: np.load(path) for name, _, path in (feed.rpartition("=") for feed in feeds)}
    count = len(next(iter(arrays.values())))
    samples = [{name: np.ascontiguousarray(array[i]) for name, array in arrays.items()} for i in range(min(count, 8))]
    session.run(None, samples[0])
    print(json.dumps({"event": "ready"}), flush=True)
    for line in sys.stdin:
        latencies = []
        for k in range(int(line.removeprefix("go "))):
            feed = samples[k % len(samples)]
            started = time.perf_counter_ns()
            session.run(None, feed)
            latencies.append(time.perf_counter_ns() - started)
        time.sleep(0.2)  # the pool's threads spin on for a while; the other side must not feel them
        print(json.dumps({"event": "ran", "latencies_ns": latencies}), flush=True)


if __name__ == "__main__":
    main()
