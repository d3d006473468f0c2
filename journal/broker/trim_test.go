package broker_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Those who are elsewhere trim as those within the process do.
func TestTrimService(t *testing.T) {
	c := one(t)
	small := spec("test/small")
	small.Fragment.Length = 1024
	c.apply(&protocol.ApplyRequest_Change{Upsert: small})
	for range 10 {
		c.mustAppend("test/small", string(make([]byte, 2000)))
	}
	service := c.broker.Trimming()
	if _, err := service.Trim(t.Context(), &protocol.TrimRequest{Journal: "test/small;meta", Below: 9000}); err != nil {
		t.Fatal(err)
	}
	content, metas := c.read(&protocol.ReadRequest{Journal: "test/small", Offset: 100}, 0)
	if metas[0].GetOffset() != 8000 || len(content) != 12000 {
		t.Errorf("%d bytes from %d on", len(content), metas[0].GetOffset())
	}
	for _, tc := range []struct {
		journal string
		below   int64
		want    fault.Kind
	}{
		{"test/none", 5, fault.NotFound},
		{"test/small", -1, fault.Invalid},
		{"", 5, fault.Invalid},
		{"/not a name/", 5, fault.Invalid},
	} {
		if _, err := service.Trim(t.Context(), &protocol.TrimRequest{Journal: tc.journal, Below: tc.below}); !fault.Is(err, tc.want) {
			t.Errorf("%q below %d: %v; want %v", tc.journal, tc.below, err, tc.want)
		}
	}
}

func TestTrimIsAuthorized(t *testing.T) {
	g := startGuarded(t)
	for _, tc := range []struct {
		capability auth.Capability
		selector   string
		want       fault.Kind
	}{
		{auth.Append | auth.Read, "", fault.Unauthenticated},
		{auth.Apply, "owner=theirs", fault.NotFound},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", g.token(tc.capability, tc.selector, time.Hour)))
		if _, err := g.broker.Trimming().Trim(ctx, &protocol.TrimRequest{Journal: "mine/a", Below: 1}); !fault.Is(err, tc.want) {
			t.Errorf("%s, %q: %v; want %v", tc.capability, tc.selector, err, tc.want)
		}
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", g.token(auth.Apply, "owner=mine", time.Hour)))
	if _, err := g.broker.Trimming().Trim(ctx, &protocol.TrimRequest{Journal: "mine/a", Below: 1}); err != nil {
		t.Errorf("with permission: %v", err)
	}
}
