// Package release holds the documents that a publisher signs and a device
// reads: the release, the index of a component of files, and the locator.
package release
