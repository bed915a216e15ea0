"""What the tests share: daemons, clients, networks, containers."""
