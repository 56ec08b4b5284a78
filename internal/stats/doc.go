// Package stats counts the requests that a waypoint answers: how many, how long
// they took and how many bytes they moved, told apart by who asked whom for what
// and how it ended.
//
// The labels are those that ambient meshes have in common, so that boards and
// queries find them; the names begin with ambit, and behind a switch with istio as
// well. A series is looked up by what a request has at hand (pointers, identities
// and numbers), so that counting a request makes no strings and allocates nothing.
// The number of series is bounded: beyond it requests are counted with labels that
// say "other".
package stats
