package route

import "strings"

// Query gives the first value of a parameter of a query, decoded, and whether
// there is one. It is read as browsers write it (application/x-www-form-urlencoded):
// pairs are apart by &, a plus sign is a space, a semicolon is nothing special. A
// pair with an incomplete percent-encoding is passed over. It allocates only for
// values that are encoded.
func Query(query, name string) (value string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if value, ok = pairValue(pair, name); ok {
			return value, true
		}
	}
	return "", false
}

// pairValue gives the value of name=value.
func pairValue(pair, name string) (string, bool) {
	if pair == "" {
		return "", false
	}
	key, value, _ := strings.Cut(pair, "=")
	if !decodesTo(key, name) {
		return "", false
	}
	return decodeQuery(value)
}

// decodesTo says that a part of a query is what text is once it is decoded.
func decodesTo(part, text string) bool {
	n := 0
	for i := 0; i < len(part); i++ {
		c := part[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			var ok bool
			if c, ok = unescape(part, i); !ok {
				return false
			}
			i += 2
		}
		if n == len(text) || text[n] != c {
			return false
		}
		n++
	}
	return n == len(text)
}

// decodeQuery decodes a part of a query; not ok means that it cannot be.
func decodeQuery(part string) (string, bool) {
	if strings.IndexByte(part, '%') < 0 && strings.IndexByte(part, '+') < 0 {
		return part, true
	}
	out := make([]byte, 0, len(part))
	for i := 0; i < len(part); i++ {
		c := part[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			var ok bool
			if c, ok = unescape(part, i); !ok {
				return "", false
			}
			i += 2
		}
		out = append(out, c)
	}
	return string(out), true
}
