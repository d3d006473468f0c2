package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// floorArg makes this program a server whose appends do nothing, as what gRPC takes for them at least.
const floorArg = "serve-floor"

// runAsFloor is that server. It reports whether the process was started as one.
func runAsFloor(args []string) bool {
	if len(args) != 1 || args[0] != floorArg {
		return false
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		server := grpc.NewServer()
		protocol.RegisterJournalServer(server, floor{})
		fmt.Printf("floor on %s\n", lis.Addr())
		err = server.Serve(lis)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
	return true
}

type floor struct {
	protocol.UnimplementedJournalServer
}

// Append receives an append and answers it with as much as a broker does.
func (floor) Append(stream grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]) error {
	var n int64
	journal := ""
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		journal += req.GetJournal()
		n += int64(len(req.GetContent()))
	}
	id := &protocol.ProcessSpec_ID{Zone: "local", Suffix: "floor"}
	return stream.SendAndClose(&protocol.AppendResponse{
		Header: &protocol.Header{
			ProcessId: id,
			Route:     &protocol.Route{Members: []*protocol.ProcessSpec_ID{id}, Endpoints: []string{"http://127.0.0.1:1"}},
			Etcd:      &protocol.Header_Etcd{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1},
		},
		Commit:    &protocol.Fragment{Journal: journal, End: n, Sum: protocol.SHA1SumOf(nil), CompressionCodec: protocol.CompressionCodec_NONE},
		Registers: new(protocol.LabelSet),
	})
}

var floorAt = regexp.MustCompile(`floor on (\S+)`)

// serveFloor starts the server and returns its address.
func serveFloor(r *run) string {
	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	p := testkit.Start(r, testkit.Command{Path: self, Args: []string{floorArg}, Env: os.Environ()})
	return p.Await(p.Stdout, floorAt)[1]
}
