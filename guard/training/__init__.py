"""Training: data, examples, train, export, calibrate, card. The only room that may import torch."""
