"""Simulated quantization: networks that compute in floats on the values that few bits can represent.

It tells what accuracy is left at so many bits, and nothing about latency.
"""
