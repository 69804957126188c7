"""Real servers for one machine, from wheels: mongod and nats-server for the demo, the tests and the benchmark."""
