// Package script runs a program of a release: verified bytes, in a process
// group of its own, with a fixed environment, within limits.
package script
