"""What a checkpoint directory calls its descriptions."""

YAML_FILE = "cosyvoice2.yaml"
CONFIG_FILE = "CosyVoice-BlankEN/config.json"
