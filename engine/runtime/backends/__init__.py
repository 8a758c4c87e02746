"""Inference backends behind one small protocol: ONNX Runtime, OpenVINO, TensorRT, torch."""
