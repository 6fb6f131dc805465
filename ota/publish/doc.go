// Package publish makes releases: it scans a real tree, packs what no earlier
// release has, and signs.
//
// A repository is a folder of plain files that any server of static files can
// serve:
//
//	metadata/   N.root.json N.targets.json N.snapshot.json timestamp.json
//	targets/    releases/PRODUCT/VARIANT/DIGEST.SEQ.json  the release documents
//	            locators/PRODUCT/VARIANT/DIGEST.SEQ.json  where their content lies
//	content/    XX/DIGEST.pack XX/DIGEST.table            the content
//
// The metadata is that of The Update Framework with consistent snapshots. All
// but timestamp.json is only ever added, every file is durable under its name
// before one that refers to it is written, and timestamp.json comes last: a
// publisher that is killed anywhere leaves the repository as clients saw it
// before, and a publisher that starts again carries on. What it left unused is
// found by [Repository.Verify].
//
// Copy a repository to where it is served in the same order: content, targets,
// metadata, timestamp.json.
package publish
