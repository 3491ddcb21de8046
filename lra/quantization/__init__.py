"""Simulated quantization: networks that compute in floats on the values that few bits can represent.

It shows what accuracy remains at a given number of bits, and says nothing about latency.

Rounding is done by torch's own kernels (``torch.fake_quantize_per_...``). The libraries around them did not fit:
torchao 0.18 prepares only linear layers and embeddings, silently skipping convolutions, and rounds activations per
token or group; ``torch.ao.quantization`` is deprecated in its favour.
"""
