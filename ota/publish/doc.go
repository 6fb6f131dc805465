// Package publish makes releases: it scans a real tree, packs what no earlier
// release has, makes deltas from the last releases, and signs.
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
// but timestamp.json is only ever added, and every file is durable under its
// name before one that refers to it is written: a publisher that is killed
// anywhere leaves a repository that clients can use, and a publisher that starts
// again carries on. What it left unused is found by [Repository.Verify], and
// removed by [Repository.Prune], which alone removes anything; unused.json at the
// top says since when it has rested. No client looks at that.
//
// Long files are cut where their content says (package chunk), and each piece is
// stored once, compressed. A release's new pieces are in one pack, in the order in
// which its indexes list them; every so many releases that pack holds all pieces.
// Before the pieces are deltas from the last releases, in groups (package delta),
// each made only where it is less than the pieces that it saves. The same trees
// give the same files, however many cores work on them. Compression holds some
// 100 MB for each core, of at most eight; the search for deltas holds 768 MB, or what
// one pair of files takes, about six times the old one and once the new.
//
// The timestamp of a release encloses the new metadata, the release's documents and the
// content that a device lacks that runs the release before, as far as they fit into
// [release.MaxEnclosed]: so a little update takes no request more than the look that
// finds it. What is published next leaves them out again, [Repository.Refresh] too. They
// are the same bytes as the files, and are verified as they are.
//
// A component of kind "compose" is made of a compose file: its index is an app
// document (package compose), and its content the configurations and uncompressed
// layers of images, configs and secrets. Layers are streamed into a file without a
// name, and each is compared with what its image's configuration says of it.
//
// A change that people have to sign elsewhere lies in waiting.json at the top
// until it is published; so does one of several steps while it is written. No
// client looks at it.
//
// Copy a repository to where it is served in this order: content, targets, the
// metadata but the newest root and timestamp.json, timestamp.json, the newest
// root; and after each change of keys, before the next. So what a client finds is
// good under the root that it finds. What is gone goes last.
package publish
