"""Calibration and quantization: streaming histograms of activations, and the ranges that follow from them."""
