// Package conformance runs version 1.7 of the official conformance suite of the Gateway API. The README of the folder above says how.
package conformance
