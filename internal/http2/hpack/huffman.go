package hpack

import (
	"errors"
	"strings"

	xhpack "golang.org/x/net/http2/hpack"
)

var errHuffman = errors.New("broken Huffman code")

// step is what four more bits do in a state of the Huffman decoder.
type step struct {
	next uint8
	sym  byte
	emit bool // sym is complete
	fail bool // the code of EOS, which must not occur
}

// huffman is the code of RFC 7541 appendix B as a machine that takes four bits at
// a time. States are the inner nodes of the code's tree, 0 its root; padded tells
// those where a string may end: after fewer than 8 bits, all of them 1.
var huffman, padded = buildHuffman()

// node is an inner node of the code's tree: a child is another node, or a symbol
// as -1-symbol. 0 is not known yet; the root is nobody's child.
type node [2]int

const eos = 256

func buildHuffman() (*[256][16]step, *[256]bool) {
	tree := huffmanTree()
	var machine [256][16]step
	for state := range tree {
		for nibble := range 16 {
			machine[state][nibble] = walk(tree, state, nibble)
		}
	}
	var ends [256]bool
	ends[0] = true
	for at, bits := 0, 1; bits < 8; bits++ {
		at = tree[at][1]
		ends[at] = true
	}
	return &machine, &ends
}

// huffmanTree rebuilds the tree from the codes that the library's encoder gives.
func huffmanTree() []node {
	tree := make([]node, 1, 256)
	add := func(code []byte, length, sym int) {
		at := 0
		for i := range length {
			bit := code[i/8] >> (7 - i%8) & 1
			if i == length-1 {
				tree[at][bit] = -1 - sym
				break
			}
			if tree[at][bit] == 0 {
				tree = append(tree, node{})
				tree[at][bit] = len(tree) - 1
			}
			at = tree[at][bit]
		}
	}
	for sym := range 256 {
		// Eight times a code of n bits is n bytes.
		code := xhpack.AppendHuffmanString(nil, strings.Repeat(string([]byte{byte(sym)}), 8))
		add(code, len(code), sym)
	}
	add([]byte{0xff, 0xff, 0xff, 0xff}, 30, eos)
	return tree
}

// walk takes four bits. Codes have at least five, so that at most one ends.
func walk(tree []node, at, nibble int) (s step) {
	for bit := 3; bit >= 0; bit-- {
		at = tree[at][nibble>>bit&1]
		if at >= 0 {
			continue
		}
		if sym := -1 - at; sym == eos {
			return step{fail: true}
		} else {
			s.sym, s.emit = byte(sym), true
		}
		at = 0
	}
	s.next = uint8(at)
	return s
}

// appendHuffman decodes p.
func appendHuffman(dst, p []byte) ([]byte, error) {
	var state uint8
	for _, c := range p {
		for _, nibble := range [2]byte{c >> 4, c & 15} {
			s := huffman[state][nibble]
			if s.fail {
				return dst, errHuffman
			}
			if s.emit {
				dst = append(dst, s.sym)
			}
			state = s.next
		}
	}
	if !padded[state] {
		return dst, errHuffman
	}
	return dst, nil
}
