"""The machine and its libraries: log, progress, device, processes, ONNX Runtime, OpenVINO, what is installed."""
