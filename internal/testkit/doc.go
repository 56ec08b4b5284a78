// Package testkit is what tests of several packages share: an authority that
// issues workload certificates of any shape, and a wait for conditions.
package testkit
