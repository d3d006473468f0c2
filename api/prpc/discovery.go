package prpc

import (
	"context"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

// directory is discovery.Discovery: it tells which services there are, and what their messages look like.
type directory struct {
	prpcpb.UnimplementedDiscoveryServer
	services map[string]*service

	once sync.Once
	resp *prpcpb.DescribeResponse
	err  error
}

// Describe returns the same answer each time, since services are registered before the first request.
func (d *directory) Describe(context.Context, *prpcpb.Void) (*prpcpb.DescribeResponse, error) {
	d.once.Do(func() { d.resp, d.err = describe(slices.Sorted(maps.Keys(d.services))) })
	return d.resp, d.err
}

func describe(services []string) (*prpcpb.DescribeResponse, error) {
	resp := &prpcpb.DescribeResponse{Description: &descriptorpb.FileDescriptorSet{}, Services: services}
	seen := make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		resp.Description.File = append(resp.Description.File, protodesc.ToFileDescriptorProto(f))
	}
	for _, name := range services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, status.Errorf(codes.Internal, "service %s: %v", name, err)
		}
		add(found.ParentFile())
	}
	return resp, nil
}
