package logpb

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The ranges in which protocol buffers have a JSON form: the years 1 to 9999, and about as long.
const (
	firstSecond = -62_135_596_800
	lastSecond  = 253_402_300_799
	longest     = 315_576_000_000
	lastNano    = 999_999_999
)

// FitTimestamp brings a time to the nearest one that has a JSON form. Senders may say any (spec butler 1.4), and one that could not be
// shown must not keep others from being listed.
func FitTimestamp(t *timestamppb.Timestamp) {
	if t == nil || t.IsValid() {
		return
	}
	t.Seconds, t.Nanos = min(max(t.Seconds, firstSecond), lastSecond), min(max(t.Nanos, 0), lastNano)
}

// FitDuration does to an offset what FitTimestamp does to a time.
func FitDuration(d *durationpb.Duration) {
	if d == nil || d.IsValid() {
		return
	}
	d.Seconds, d.Nanos = min(max(d.Seconds, -longest), longest), min(max(d.Nanos, -lastNano), lastNano)
	if !d.IsValid() { // the two have different signs, or are too long together
		d.Nanos = 0
	}
}
