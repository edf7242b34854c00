"""Networks of our own; everything else comes from timm and torchvision by YAML."""
