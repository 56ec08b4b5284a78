// Package statefile keeps the control plane's state on disk: files that are
// replaced whole, so that a crash leaves either the old or the new one, files that
// are appended to, and private files that only their owner may read.
//
// It knows nothing of what the files hold.
package statefile
