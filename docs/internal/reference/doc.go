// Package reference makes the pages of docs/reference from the source: what each
// program takes (its own --help), which metrics there are (where they are
// declared), and what the CRDs hold (their schemas).
//
// It takes the root of the tree and gives pages; it writes nothing.
package reference
