// Package status writes into the status of Kubernetes objects what the compiler
// says of them.
//
//	compiler ─ Changed ─▶ queue, one entry per object ─▶ read the object ─ Merge ─▶ write, if anything is different
//	anybody's write ─ Touched ─▶ the same queue, unless it was our own
//
// Only what is the mesh's is written: entries of other controllers, conditions of
// other types and unknown fields stay as they are read, because objects are read
// and written in the form in which the API server gives them. What is as it should
// be is not written, so that at rest nothing is. Writes are limited in rate, and
// several changes of an object within a moment make one. A write that meets
// another one is done again on what is there then.
//
// A Writer is run by the leader alone.
package status
