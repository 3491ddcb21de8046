"""Simulated quantization: networks that compute in floats on the values that few bits can represent.

It tells what accuracy is left at so many bits, and nothing about latency.

Rounding is done by torch's own kernels (``torch.fake_quantize_per_...``). The libraries around them did not fit:
torchao 0.18 prepares linear layers and embeddings only, passing convolutions by without a word, and rounds activations
a token or a group at a time; ``torch.ao.quantization`` is deprecated in its favour.
"""
