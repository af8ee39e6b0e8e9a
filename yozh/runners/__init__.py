"""How agents meet environments."""
