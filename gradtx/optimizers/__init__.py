"""One public optimizer per file, under its own name: equation, rule, builder."""
