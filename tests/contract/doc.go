// Package contract holds tests of what one component says to another.
package contract
