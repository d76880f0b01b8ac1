"""Each stage of a night takes manifests and settings and hands back a manifest; a stage whose work is done returns at once."""
