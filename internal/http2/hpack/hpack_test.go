package hpack_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	xhpack "golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/http2/hpack"
)

var noClasses = hpack.NewClasses(func(string, string) uint8 { return 7 })

type pairs [][2]string

func (p pairs) String() string { return fmt.Sprintf("%q", [][2]string(p)) }

func ours(fields []hpack.Field) (out pairs) {
	for _, f := range fields {
		out = append(out, [2]string{f.Name, f.Value})
	}
	return out
}

func theirs(fields []xhpack.HeaderField) (out pairs) {
	for _, f := range fields {
		out = append(out, [2]string{f.Name, f.Value})
	}
	return out
}

// blocks are many blocks of fields that repeat, change and are odd.
func blocks(n int) (out []pairs) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{":method", ":path", ":status", "accept", "cookie", "te", "x-request-id", "grpc-status", "user-agent", "set-cookie"}
	for range n {
		var p pairs
		for range r.IntN(12) {
			value := strings.Repeat(string(rune('a'+r.IntN(5))), r.IntN(6))
			switch r.IntN(20) {
			case 0:
				value = strings.Repeat("\x00\xff~long", r.IntN(300))
			case 1, 2, 3:
				value = fmt.Sprint(r.Uint64())
			case 4:
				value = "GET"
			}
			p = append(p, [2]string{names[r.IntN(len(names))], value})
		}
		out = append(out, p)
	}
	return out
}

func TestDecodesWhatTheLibraryEncodes(t *testing.T) {
	var buf bytes.Buffer
	enc := xhpack.NewEncoder(&buf)
	dec := hpack.NewDecoder(1<<20, 1000, noClasses)
	for i, want := range blocks(5000) {
		buf.Reset()
		if i%100 == 50 {
			enc.SetMaxDynamicTableSize(uint32(i % 4097))
		}
		for _, f := range want {
			_ = enc.WriteField(xhpack.HeaderField{Name: f[0], Value: f[1], Sensitive: i%7 == 0})
		}
		got, excess, err := dec.Decode(buf.Bytes())
		if err != nil || excess != hpack.Within || !slices.Equal(ours(got), want) {
			t.Fatalf("block %d: %v, %v, %d\n got %v\nwant %v", i, err, excess, len(got), ours(got), want)
		}
		for _, f := range got {
			if f.Class != 7 {
				t.Fatalf("block %d: class %d of %s", i, f.Class, f.Name)
			}
		}
	}
}

func TestTheLibraryDecodesWhatWeEncode(t *testing.T) {
	var got []xhpack.HeaderField
	dec := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { got = append(got, f) })
	enc := hpack.NewEncoder()
	var b []byte
	for i, want := range blocks(5000) {
		if i%100 == 50 {
			// Two changes between blocks: the lower one must be told too.
			enc.SetPeerTable(uint32(i % 1000))
			enc.SetPeerTable(uint32(i % 5000))
		}
		b, got = enc.Begin(b[:0]), got[:0]
		for _, f := range want {
			b = enc.Append(b, f[0], f[1])
		}
		if _, err := dec.Write(b); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if err := dec.Close(); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if !slices.Equal(theirs(got), want) {
			t.Fatalf("block %d:\n got %v\nwant %v", i, theirs(got), want)
		}
	}
}

func TestSecretsStayOutOfTables(t *testing.T) {
	enc := hpack.NewEncoder()
	var got []xhpack.HeaderField
	dec := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { got = append(got, f) })
	for range 3 {
		for _, name := range []string{"authorization", "cookie", "set-cookie", "proxy-authorization"} {
			if _, err := dec.Write(enc.Append(nil, name, "secret")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range got {
		if !f.Sensitive {
			t.Errorf("%s is not marked as never indexed", f.Name)
		}
	}
}

// Two fields may share a slot, by an encoder's seed; with few fields that is rare.
func TestRepeatedFieldsShrinkToAByte(t *testing.T) {
	const encoders = 64
	shrunk := 0
	for range encoders {
		enc := hpack.NewEncoder()
		last := 0
		for i := range 4 {
			unique := fmt.Sprint("unique-", i)
			if b := enc.Append(nil, "x-request-id", unique); len(b) < len(unique) {
				t.Errorf("a field with a new value took %d bytes", len(b))
			}
			last = len(enc.Append(nil, "user-agent", "grpc-go/1.85.0"))
		}
		if last == 1 {
			shrunk++
		}
	}
	if shrunk < encoders*3/4 {
		t.Errorf("a repeated field shrank to one byte with %d of %d encoders", shrunk, encoders)
	}
}

// What is dropped for its size still changes the table.
func TestExcessLeavesTheTableRight(t *testing.T) {
	var buf bytes.Buffer
	enc := xhpack.NewEncoder(&buf)
	write := func(fields ...string) []byte {
		buf.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = enc.WriteField(xhpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return buf.Bytes()
	}
	dec := hpack.NewDecoder(200, 3, noClasses)
	for _, tc := range []struct {
		fields []string
		want   hpack.Excess
	}{
		{[]string{"a", "1", "b", "2"}, hpack.Within},
		{[]string{"big", strings.Repeat("x", 300), "c", "3"}, hpack.TooLarge},
		{[]string{"a", "1", "c", "3", "d", "4", "e", "5"}, hpack.TooMany},
		{[]string{"c", "3", "e", "5", "b", "2"}, hpack.Within},
	} {
		got, excess, err := dec.Decode(write(tc.fields...))
		if err != nil || excess != tc.want {
			t.Fatalf("%q: %v, excess %d, want %d", tc.fields, err, excess, tc.want)
		}
		if excess == hpack.Within && len(got) != len(tc.fields)/2 || excess != hpack.Within && len(got) > 0 {
			t.Errorf("%q: %v", tc.fields, ours(got))
		}
		for i, f := range got {
			if f.Name != tc.fields[2*i] || f.Value != tc.fields[2*i+1] {
				t.Errorf("%q: %v", tc.fields, ours(got))
			}
		}
	}
}

func TestBrokenBlocks(t *testing.T) {
	for name, block := range map[string]string{
		"index 0":                      "\x80",
		"index beyond the tables":      "\xbe",
		"name beyond the tables":       "\x7f\x10\x01x",
		"integer without end":          "\xff\xff",
		"integer too large":            "\xff\xff\xff\xff\xff\xff\x01",
		"literal without value":        "\x40\x01a",
		"string beyond the block":      "\x40\x05a",
		"resize behind a field":        "\x82\x20",
		"resize above the maximum":     "\x3f\xe2\x1f",
		"Huffman: EOS":                 "\x40\x84\xff\xff\xff\xff\x00",
		"Huffman: eight bits padding":  "\x40\x82\x1f\xff\x00",
		"Huffman: padding that is not": "\x40\x81\x18\x00",
		"nothing behind the form":      "\x40",
	} {
		if got, _, err := hpack.NewDecoder(1000, 10, noClasses).Decode([]byte(block)); err == nil {
			t.Errorf("%s: decoded to %v", name, ours(got))
		}
	}
}

// FuzzDecode compares with the library, block after block.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), []byte("\xbe\x3f\x10\x40\x01a\x01b"))
	f.Add([]byte("\x3f\xe1\x1f\x40\x82\x1f\xff\x00"), []byte("\x10\x01a\x01b"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var want []xhpack.HeaderField
		lib := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { want = append(want, f) })
		dec := hpack.NewDecoder(1<<20, 1<<16, noClasses)
		for _, block := range [][]byte{one, two} {
			want = want[:0]
			_, werr := lib.Write(block)
			if werr == nil {
				werr = lib.Close()
			}
			got, excess, err := dec.Decode(block)
			if err != nil {
				return // stricter: the length of integers
			}
			if werr != nil {
				t.Fatalf("decoded %x to %v, the library says %v", block, ours(got), werr)
			}
			if excess == hpack.Within && !slices.Equal(ours(got), theirs(want)) {
				t.Fatalf("%x:\n got %v\nwant %v", block, ours(got), theirs(want))
			}
		}
	})
}

// FuzzEncode decodes with the library what we encode.
func FuzzEncode(f *testing.F) {
	f.Add("a", "b", "a", "b", uint32(100))
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string, size uint32) {
		enc := hpack.NewEncoder()
		var got pairs
		dec := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { got = append(got, [2]string{f.Name, f.Value}) })
		var want pairs
		for i := range 4 {
			if i == 2 {
				enc.SetPeerTable(size)
			}
			b := enc.Begin(nil)
			b = enc.Append(b, n1, v1)
			b = enc.Append(b, n2, v2)
			want = append(want, [2]string{n1, v1}, [2]string{n2, v2})
			if _, err := dec.Write(b); err != nil {
				t.Fatal(err)
			}
			_ = dec.Close()
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

var requestFields = pairs{
	{":method", "POST"},
	{":scheme", "http"},
	{":path", "/shop.Cart/Add"},
	{":authority", "cart.shop.svc:8080"},
	{"content-type", "application/grpc"},
	{"user-agent", "grpc-go/1.85.0"},
	{"te", "trailers"},
	{"grpc-timeout", "999m"},
	{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	{"x-request-id", "af3ce6b0-1c35-44a7-9df5-3e2d5d6bb1a3"},
}

func BenchmarkEncode(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		enc := hpack.NewEncoder()
		var out []byte
		for range b.N {
			out = out[:0]
			for _, f := range requestFields {
				out = enc.Append(out, f[0], f[1])
			}
		}
		b.ReportMetric(float64(len(out)), "bytes")
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		enc := xhpack.NewEncoder(&buf)
		for range b.N {
			buf.Reset()
			for _, f := range requestFields {
				_ = enc.WriteField(xhpack.HeaderField{Name: f[0], Value: f[1]})
			}
		}
		b.ReportMetric(float64(buf.Len()), "bytes")
	})
}

func BenchmarkDecode(b *testing.B) {
	var buf bytes.Buffer
	enc := xhpack.NewEncoder(&buf)
	var blocks [2][]byte
	for i := range blocks { // the second is what comes again and again
		buf.Reset()
		for _, f := range requestFields {
			_ = enc.WriteField(xhpack.HeaderField{Name: f[0], Value: f[1], Sensitive: f[0] == "traceparent" || f[0] == "x-request-id"})
		}
		blocks[i] = bytes.Clone(buf.Bytes())
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		dec := hpack.NewDecoder(1<<16, 100, noClasses)
		_, _, _ = dec.Decode(blocks[0])
		for range b.N {
			_, _, _ = dec.Decode(blocks[1])
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		dec := xhpack.NewDecoder(4096, func(xhpack.HeaderField) {})
		_, _ = dec.Write(blocks[0])
		for range b.N {
			_, _ = dec.Write(blocks[1])
			_ = dec.Close()
		}
	})
}
