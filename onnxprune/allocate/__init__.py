"""How much is removed where: selected groups, counts per group, the channels that stay, targets that are met."""
