package route_test

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/waypoint/route"
)

func TestNormalizePath(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"/", "/"},
		{"*", "*"},
		{"", ""},
		{"/a/b?x=%2f..#y", "!has a fragment"},
		{"/a/b?x=/../%2f", "/a/b?x=/../%2f"},
		{"/%61%7e%2D", "/a~-"},
		{"/a%c3%a9", "/a%C3%A9"},
		{"/aé|{}", "/a%C3%A9%7C%7B%7D"},
		{"/a/./b/../c", "/a/c"},
		{"/a/..", "/"},
		{"/a/.", "/a/"},
		{"/../../a", "/a"},
		{"/%2e%2E/a/%2e", "/a/"},
		{"/a/.%2e/b", "/b"},
		{"/a//b/../c", "/a//c"},
		{"/a//../b", "/a/b"},
		{"/...", "/..."},
		{"/a.b/..c", "/a.b/..c"},
		{"/%252e%252e/", "/%252e%252e/"},
		{"/a;b=1/c+d%2B", "/a;b=1/c+d%2B"},
		{"/a?", "/a?"},
		{"/a/../?b", "/?b"},
		{"a", "!does not begin with a slash"},
		{"/a%2fb", "!has an encoded slash"},
		{"/a%5Cb", "!has an encoded backslash"},
		{`/a\b`, "!has a backslash"},
		{"/a%00", "!has an encoded NUL"},
		{"/a%", "!has an incomplete percent-encoding"},
		{"/a%2", "!has an incomplete percent-encoding"},
		{"/a%zz", "!has an incomplete percent-encoding"},
		{"/a\x01", "!has a control character"},
		{"/a?b\r\n", "!has a control character in its query"},
		{"/a/..;x/b", "!has a dot segment with parameters"},
		{"/a/%2e%2e;x/b", "!has a dot segment with parameters"},
	} {
		got, err := route.NormalizePath(c.raw)
		if err != nil {
			got = "!" + strings.TrimPrefix(err.Error(), "the request's path ")
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.raw, got, c.want)
		}
	}
}

func TestNormalPathsDoNotAllocate(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		if _, err := route.NormalizePath("/api/v1/items/17.html?x=%2f"); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// notNormal is what a normal path has none of: dot segments, encodings of
// unreserved characters or in small letters, and what is refused.
var notNormal = regexp.MustCompile(`(?i)/\.\.?(/|;|$)|%(2d|2e|5f|7e|3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a]|00|2f|5c)|[^!-~]|[\\#"<>^{|}]|` + "`")

// What NormalizePath gives is normal, is its own normal form, and has the
// segments that a server gets that resolves and decodes the raw path.
func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/a/../b?c", "/%2e%2e/x", "/..;/", "*", "/a%2fb", "/é/./", "/%C3%a9//..", "/a\\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := route.NormalizePath(raw)
		if err != nil {
			if got != "" {
				t.Fatalf("%q beside %v", got, err)
			}
			return
		}
		if again, err := route.NormalizePath(got); err != nil || again != got {
			t.Fatalf("%q is normal for %q, and %q (%v) is for that", got, raw, again, err)
		}
		path, query, _ := strings.Cut(got, "?")
		rawPath, rawQuery, _ := strings.Cut(raw, "?")
		if query != rawQuery {
			t.Fatalf("query %q of %q", query, raw)
		}
		if path == "*" || path == "" {
			return
		}
		if path[0] != '/' || notNormal.MatchString(path) || regexp.MustCompile(`%.?[a-f]`).MatchString(path) {
			t.Fatalf("%q is not normal", path)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := served(rawPath); decoded != want {
			t.Fatalf("%q is %q for a server, which makes %q of %q", path, decoded, want, rawPath)
		}
	})
}

// served decodes the segments of a path and resolves the dots.
func served(raw string) string {
	segments := strings.Split(raw, "/")[1:]
	var out []string
	for i, s := range segments {
		s, _ = url.PathUnescape(s)
		last := i == len(segments)-1
		switch {
		case s == ".." && len(out) > 0:
			out = out[:len(out)-1]
		case s != "." && s != "..":
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// Query and net/url read the same first values.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=%31&a=2", "a;b=1", "%zz=1&a", "+a=+&=x", "&&a=&"} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, query, name string) {
		got, ok := route.Query(query, name)
		// A semicolon is nothing special since browsers write none.
		values, _ := url.ParseQuery(strings.ReplaceAll(query, ";", "%3B"))
		if ok != values.Has(name) || got != values.Get(name) {
			t.Fatalf("%q of %q: %q %v, net/url: %q %v", name, query, got, ok, values.Get(name), values.Has(name))
		}
	})
}

// Cookie finds the first of the pairs that there are.
func FuzzCookie(f *testing.F) {
	f.Add("a=1; b=2", "a=3", "b")
	f.Add(" a = 1 ;;=x;a", "a=\"q\"", "a")
	f.Fuzz(func(t *testing.T, first, second, name string) {
		got, ok := route.Cookie(fields("cookie", first, "x", "a=9", "cookie", second), name)
		var all [][2]string
		for _, pair := range slices.Concat(strings.Split(first, ";"), strings.Split(second, ";")) {
			if i := strings.Index(pair, "="); i >= 0 {
				all = append(all, [2]string{strings.Trim(pair[:i], " \t"), strings.Trim(pair[i+1:], " \t")})
			}
		}
		i := slices.IndexFunc(all, func(p [2]string) bool { return p[0] == name && name != "" })
		if ok != (i >= 0) || ok && got != all[i][1] {
			t.Fatalf("%q in %q, %q: %q %v", name, first, second, got, ok)
		}
	})
}
