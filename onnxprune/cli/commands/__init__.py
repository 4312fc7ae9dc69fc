"""One file a command; each has a click command named `command`. Importing one of them must stay cheap."""
