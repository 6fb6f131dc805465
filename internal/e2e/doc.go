// Package e2e has only tests. They build the agent and the publisher and drive
// them as a maker and a device do: real folders of thousands of files, a real
// HTTP server, real processes, and every fault that a device in the field
// meets. A checker of its own compares what is on the device.
package e2e
