// Package manifest reads directories of Kubernetes manifests into typed objects
// and follows their changes.
//
//	w, err := manifest.NewWatcher(manifest.Config{Dirs: dirs, Apply: func(b manifest.Batch) { ... }})
//	err = w.Run(ctx)                       // the first batch is everything there is
//
//	state, err := manifest.Load(dirs...)   // once, without watching
//
// # What is read
//
// Files ending in .yaml, .yml or .json, in the directory and below it, each with
// any number of documents. Names that begin with a dot or end in ~ (and the
// temporary files of editors) are skipped, directories included. A file that is
// a symbolic link is followed, a directory below the root that is one is not.
//
// Kinds are those of NewScheme; List is unrolled. Decoding is strict: an unknown
// or duplicate field is a Problem that names file, line and field. Defaults that
// the rest of the mesh relies on are filled in as an API server would, and fields
// that the mesh relies on are validated.
//
// # What wins
//
// Later directories overlay earlier ones: the same object (group, kind,
// namespace, name) in a later directory supersedes the earlier, whole, and its
// deletion there brings the earlier one back. Within one directory an object may
// be defined once. If it is defined more often, the definition in the file whose
// path sorts first counts, within a file the first one, and each further one is
// a Problem that names both positions.
//
// # What happens on errors
//
// The last good state keeps serving. While a file has a problem, its good
// documents are taken and no object that it defined before is deleted. A file
// that is not even YAML or JSON, or is empty (as it is while an editor
// rewrites it), changes nothing. A root directory that disappears keeps its
// objects until it is back.
package manifest
