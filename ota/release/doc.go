// Package release holds the documents that a publisher signs and a device
// reads: the [Release], the [Index] of a component of files, and the [Locator]
// with its [Table].
//
// A Release names its indexes by digest and an Index names the content of files
// by digest, so that one signature over the Release covers all. Where the
// content lies stands in the Locator, which may be replaced: bytes that come
// from there are checked against the digests.
//
// Every document has exactly one form, which Encode writes and the readers
// insist on. The formats are version 0 and may still change; a reader refuses
// any other version with [ErrFormat].
package release
