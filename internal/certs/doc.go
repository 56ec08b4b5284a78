// Package certs keeps the certificates of the identities that run on this node:
// it asks the authority for them as soon as a workload is known, renews at half
// life, keeps the old one while it is valid when the authority is away, and
// forgets identities that nobody uses. Keys are made here and never leave memory.
package certs
