package bigtable

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/bigtable/apiv2/bigtablepb"
	"golang.org/x/oauth2/google"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	endpoint = "bigtable.googleapis.com:443"
	scope    = "https://www.googleapis.com/auth/bigtable.data"
	// emulatorVariable names the address of an emulator, as for Google's own clients.
	emulatorVariable = "BIGTABLE_EMULATOR_HOST"
	// maxMessage is the most bytes of an answer. Bigtable itself has rows of up to 256 MiB.
	maxMessage = 256 << 20

	family             = "log"
	dataColumn         = "data"
	positionColumn     = "position"
	serverTime         = -1
	mutationsBytes     = 8 << 20 // of a request, about
	maxMutationsInCall = 50_000  // the service takes 100,000
)

// table is a thin client of a table. The service's SDK would bring telemetry, xDS and more that makes the program larger by a quarter.
type table struct {
	name, profile string
	conn          *grpc.ClientConn
	client        bigtablepb.BigtableClient
}

// openTable connects to a table. Its address is bigtable://PROJECT/INSTANCE/TABLE, and may say ?app_profile=….
func openTable(ctx context.Context, address string) (*table, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if u.Scheme != "bigtable" || u.Host == "" || len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return nil, fault.New(fault.Invalid, "%q is no address of a table; give bigtable://PROJECT/INSTANCE/TABLE", address)
	}
	t := &table{
		name:    fmt.Sprintf("projects/%s/instances/%s/tables/%s", u.Host, parts[0], parts[1]),
		profile: u.Query().Get("app_profile"),
	}
	target := endpoint
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A network that swallows everything is found out.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if emulator := os.Getenv(emulatorVariable); emulator != "" {
		target = emulator
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	} else {
		// The tokens are fetched with the context for as long as the table is open.
		creds, err := google.FindDefaultCredentials(context.WithoutCancel(ctx), scope)
		if err != nil {
			return nil, fault.Wrap(fault.Precondition, err)
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})),
			grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: creds.TokenSource}))
	}
	if t.conn, err = grpc.NewClient(target, options...); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	t.client = bigtablepb.NewBigtableClient(t.conn)
	return t, nil
}

// outgoing adds what requests are routed by.
func (t *table) outgoing(ctx context.Context) context.Context {
	params := "table_name=" + url.QueryEscape(t.name) + "&app_profile_id=" + url.QueryEscape(t.profile)
	return metadata.AppendToOutgoingContext(ctx, "x-goog-request-params", params)
}

// cell is a row with the one cell of it that is of interest.
type cell struct {
	key   []byte
	found bool
	value []byte
}

// rowSet selects rows.
type rowSet = bigtablepb.RowSet

// rowRange selects the rows with keys from first up to and without end.
func rowRange(first, end string) *bigtablepb.RowRange {
	return &bigtablepb.RowRange{
		StartKey: &bigtablepb.RowRange_StartKeyClosed{StartKeyClosed: []byte(first)},
		EndKey:   &bigtablepb.RowRange_EndKeyOpen{EndKeyOpen: []byte(end)},
	}
}

// newest selects the newest cell of each column, without its value if only keys are wanted.
func newest(keysOnly bool) *bigtablepb.RowFilter {
	one := &bigtablepb.RowFilter{Filter: &bigtablepb.RowFilter_CellsPerColumnLimitFilter{CellsPerColumnLimitFilter: 1}}
	if !keysOnly {
		return one
	}
	strip := &bigtablepb.RowFilter{Filter: &bigtablepb.RowFilter_StripValueTransformer{StripValueTransformer: true}}
	return &bigtablepb.RowFilter{Filter: &bigtablepb.RowFilter_Chain_{
		Chain: &bigtablepb.RowFilter_Chain{Filters: []*bigtablepb.RowFilter{one, strip}},
	}}
}

// read calls fn with rows in the order of their keys, until it returns false. fn may keep what it is given.
func (t *table) read(ctx context.Context, rows *rowSet, column string, keysOnly bool, limit int, fn func(cell) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the rest is not wanted
	stream, err := t.client.ReadRows(t.outgoing(ctx), &bigtablepb.ReadRowsRequest{
		TableName: t.name, AppProfileId: t.profile, Rows: rows, Filter: newest(keysOnly), RowsLimit: int64(limit),
	})
	if err != nil {
		return kinded(err)
	}
	row := rowReader{column: column}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if row.within {
				return fault.New(fault.Transient, "the answer ends within a row")
			}
			return nil
		}
		if err != nil {
			return kinded(err)
		}
		for _, chunk := range answer.GetChunks() {
			if !row.add(chunk) {
				continue
			}
			more, err := fn(row.cell)
			if err != nil || !more {
				return err
			}
			row = rowReader{column: column}
		}
	}
}

// rowReader puts a row together. Cells come in chunks, which say what has changed since the one before.
type rowReader struct {
	cell
	column            string
	family, qualifier string
	within            bool
}

// add takes a chunk, and reports whether the row is complete.
func (r *rowReader) add(c *bigtablepb.ReadRowsResponse_CellChunk) bool {
	if c.GetResetRow() {
		*r = rowReader{column: r.column}
		return false
	}
	if len(c.GetRowKey()) > 0 {
		r.key = c.GetRowKey()
	}
	if c.GetFamilyName() != nil {
		r.family = c.GetFamilyName().GetValue()
	}
	if c.GetQualifier() != nil {
		r.qualifier = string(c.GetQualifier().GetValue())
	}
	r.within = true
	if r.family == family && r.qualifier == r.column {
		r.found = true
		if r.value == nil {
			r.value = c.GetValue()
		} else {
			r.value = append(r.value[:len(r.value):len(r.value)], c.GetValue()...)
		}
	}
	return c.GetCommitRow()
}

// set is the mutation that sets a cell.
func set(column string, at int64, value []byte) []*bigtablepb.Mutation {
	return []*bigtablepb.Mutation{{Mutation: &bigtablepb.Mutation_SetCell_{SetCell: &bigtablepb.Mutation_SetCell{
		FamilyName: family, ColumnQualifier: []byte(column), TimestampMicros: at, Value: value,
	}}}}
}

// remove is the mutation that deletes a row.
func remove() []*bigtablepb.Mutation {
	return []*bigtablepb.Mutation{{Mutation: &bigtablepb.Mutation_DeleteFromRow_{DeleteFromRow: &bigtablepb.Mutation_DeleteFromRow{}}}}
}

// mutation changes a row.
type mutation = bigtablepb.MutateRowsRequest_Entry

// mutate changes rows. If it fails some may have been changed.
func (t *table) mutate(ctx context.Context, mutations []*mutation) error {
	stream, err := t.client.MutateRows(t.outgoing(ctx), &bigtablepb.MutateRowsRequest{TableName: t.name, AppProfileId: t.profile, Entries: mutations})
	if err != nil {
		return kinded(err)
	}
	answered := 0
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return kinded(err)
		}
		for _, e := range answer.GetEntries() {
			if err := status.FromProto(e.GetStatus()).Err(); err != nil {
				return kinded(err)
			}
			answered++
		}
	}
	if answered != len(mutations) {
		return fault.New(fault.Transient, "%d of %d changes were not answered", len(mutations)-answered, len(mutations))
	}
	return nil
}

// raise sets the cell unless it has the value or one that sorts behind it.
func (t *table) raise(ctx context.Context, key, column string, at int64, value []byte) error {
	_, err := t.client.CheckAndMutateRow(t.outgoing(ctx), &bigtablepb.CheckAndMutateRowRequest{
		TableName: t.name, AppProfileId: t.profile, RowKey: []byte(key),
		PredicateFilter: &bigtablepb.RowFilter{Filter: &bigtablepb.RowFilter_ValueRangeFilter{
			ValueRangeFilter: &bigtablepb.ValueRange{StartValue: &bigtablepb.ValueRange_StartValueClosed{StartValueClosed: value}},
		}},
		FalseMutations: set(column, at, value),
	})
	return kinded(err)
}

// kinded gives a failure of the service its kind.
func kinded(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unknown, codes.Internal, codes.Unavailable, codes.Aborted:
		var known *fault.Error
		if errors.As(err, &known) {
			return err
		}
		return fault.Wrap(fault.Transient, err)
	case codes.NotFound:
		// It is not an entry that is missing.
		return fault.New(fault.Precondition, "%w; the table has to be there, with a column family %q", err, family)
	default:
		return fault.FromGRPC(err)
	}
}
