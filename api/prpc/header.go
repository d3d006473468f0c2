package prpc

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

// acceptItem splits an item of Accept or Accept-Encoding into what is accepted, and how welcome that is.
func acceptItem(item string) (accepted string, q float64, err error) {
	parts := strings.Split(item, ";")
	kept := parts[:1]
	q = 1
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			kept = append(kept, p)
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		if q, err = strconv.ParseFloat(value, 64); err != nil || math.IsNaN(q) || math.IsInf(q, 0) {
			return "", 0, fmt.Errorf("q=%q is not a number", value)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ";")), q, nil
}

// accept returns the encoding that is most welcome, or false if none is. Without a header that is binary.
func accept(header []string) (encoding, bool, error) {
	all := strings.Join(header, ",")
	if strings.Trim(all, " \t,") == "" {
		return binary, true, nil
	}
	best, found, bestQ := binary, false, math.Inf(-1)
	for item := range strings.SplitSeq(all, ",") {
		mediaType, q, err := acceptItem(item)
		if err != nil {
			return binary, false, err
		}
		if mediaType == "" {
			continue
		}
		if e, ok := encodingOf(mediaType); ok && (q > bestQ || q == bestQ && e < best) {
			best, found, bestQ = e, true, q
		}
	}
	return best, found, nil
}

// acceptsGzip tells whether Accept-Encoding lists gzip. How welcome it is does not matter, as with other servers.
func acceptsGzip(header []string) (found bool, err error) {
	for item := range strings.SplitSeq(strings.Join(header, ","), ",") {
		coding, _, err := acceptItem(item)
		if err != nil {
			return false, err
		}
		found = found || strings.EqualFold(coding, "gzip")
	}
	return found, nil
}

// The units of time budgets, finest first.
var units = [...]struct {
	letter byte
	size   time.Duration
}{
	{'n', time.Nanosecond},
	{'u', time.Microsecond},
	{'m', time.Millisecond},
	{'S', time.Second},
	{'M', time.Minute},
	{'H', time.Hour},
}

// maxTimeout is the largest number in a time budget: eight digits.
const maxTimeout = 99999999

// encodeTimeout writes a time budget in the finest unit that takes it, rounded up. A negative one is zero.
func encodeTimeout(d time.Duration) string {
	d = max(d, 0)
	for _, u := range units {
		n := int64(d / u.size)
		if d%u.size != 0 {
			n++
		}
		if n <= maxTimeout {
			return strconv.FormatInt(n, 10) + string(u.letter)
		}
	}
	panic("prpc: a duration has fewer hours than that")
}

// decodeTimeout reads a time budget. What is more than a duration can hold becomes the longest one.
func decodeTimeout(s string) (time.Duration, error) {
	if len(s) >= 2 {
		n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
		for _, u := range units {
			if err != nil || u.letter != s[len(s)-1] {
				continue
			}
			limit := int64(math.MaxInt64 / u.size)
			return time.Duration(min(max(n, -limit), limit)) * u.size, nil
		}
	}
	return 0, fmt.Errorf("%q is not a number and a unit (H, M, S, m, u or n)", s)
}

// reserved tells whether a header belongs to the protocol, so that metadata can neither contain nor set it. The key is lower-case.
func reserved(key string) bool {
	switch key {
	case "accept", "accept-encoding", "content-encoding", "content-length", "content-type", "vary", "x-content-type-options":
		return true
	}
	return strings.HasPrefix(key, "x-prpc-") || strings.HasPrefix(key, "access-control-")
}

// metadataOf returns the metadata that headers carry.
func metadataOf(h http.Header) (metadata.MD, error) {
	md := make(metadata.MD, len(h)+2)
	for key, values := range h {
		key = strings.ToLower(key)
		if reserved(key) {
			continue
		}
		if !strings.HasSuffix(key, "-bin") {
			md[key] = append(md[key], values...)
			continue
		}
		for _, v := range values {
			decoded, err := decodeBin(v)
			if err != nil {
				return nil, fmt.Errorf("header %s: %w", key, err)
			}
			md[key] = append(md[key], decoded...)
		}
	}
	return md, nil
}

// setMetadata adds metadata to headers. Reserved keys must have been refused before.
func setMetadata(h http.Header, md metadata.MD) {
	for key, values := range md {
		name := textproto.CanonicalMIMEHeaderKey(key)
		for _, v := range values {
			if strings.HasSuffix(strings.ToLower(key), "-bin") {
				v = base64.StdEncoding.EncodeToString([]byte(v))
			}
			h[name] = append(h[name], v)
		}
	}
}

// decodeBin returns the bytes in a header that ends in -bin: one value, or several with commas between.
func decodeBin(value string) ([]string, error) {
	var out []string
	for v := range strings.SplitSeq(value, ",") {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(v))
		if err != nil {
			return nil, fmt.Errorf("not base64: %w", err)
		}
		out = append(out, string(b))
	}
	return out, nil
}
