// Package hpack codes header blocks (RFC 7541) for internal/http2. It is made for
// a proxy: a block decodes into one piece of memory for all its literal text; what
// a field is was worked out once, when it entered the table; fields beyond a limit
// are decoded and dropped, so that the table stays right for the next block; and
// the encoder lets a field into its table when it sees it for the second time, so
// that what is different in each request pushes out nothing that is not.
//
// Huffman codes are decoded and not produced: within a mesh bytes are cheaper than
// the time both ends would spend on them.
package hpack
