// Package files feeds the compiler from directories of manifests. It turns the
// batches of internal/manifest into compile.Input, and leaves reading, watching
// and decoding to that package.
package files
