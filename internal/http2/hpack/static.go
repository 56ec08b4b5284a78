package hpack

// pair is a field of a table.
type pair struct{ name, value string }

// static is the table of RFC 7541 appendix A, counted from 1.
var static = [...]pair{
	{},
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

const staticLen = len(static) - 1

// staticNames gives the lowest index of each name, staticPairs that of each pair
// with a value.
var staticNames, staticPairs = func() (map[string]uint64, map[pair]uint64) {
	names, pairs := make(map[string]uint64, staticLen), make(map[pair]uint64)
	for i := staticLen; i > 0; i-- {
		names[static[i].name] = uint64(i)
		if static[i].value != "" {
			pairs[static[i]] = uint64(i)
		}
	}
	return names, pairs
}()

// tableSize is the size of both tables, in the bytes of RFC 7541 section 4.1: what
// SETTINGS_HEADER_TABLE_SIZE is when nobody says anything.
const tableSize = 4096

// overhead is what an entry counts beside its text, RFC 7541 section 4.1.
const overhead = 32

// ringLen is how many entries a table can have.
const ringLen = tableSize / overhead
