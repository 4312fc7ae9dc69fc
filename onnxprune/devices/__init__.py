"""How long models take where they will run: commands of the user, boards that are reached by ssh, results of tools."""
