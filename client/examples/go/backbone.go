package main

import (
	"context"
	"time"

	pb "backboned.example/backboned/v1"
)

// callTimeout is the deadline of each call from its beginning.
const callTimeout = time.Minute

// head selects the classifier's parameters.
var head = &pb.Selection{Globs: []string{"classifier.*"}}

// backbone is one instance: the calls of this example.
type backbone struct {
	client pb.BackboneServiceClient
	name   string
}

// extract gives features of images, in one message each way.
func (b backbone) extract(
	ctx context.Context, images *pb.TensorSpec, pixels []byte,
) (*pb.ExtractResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	merge := false
	return b.client.Extract(ctx, &pb.ExtractRequest{
		Instance: b.name, Input: images, Data: pixels, AllowMerge: &merge,
	})
}

// forward runs a forward and gives the bytes of its outputs. It fills in the
// instance's name.
func (b backbone) forward(
	ctx context.Context, header *pb.ForwardHeader, pixels []byte,
) (*pb.ForwardResult, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	header.Instance = b.name
	stream, err := b.client.Forward(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = sendChunks(pixels, func(chunk *pb.Chunk) error {
		request := &pb.ForwardRequest{Header: header, Chunk: chunk}
		header = nil
		return stream.Send(request)
	})
	if err != nil {
		return nil, nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, nil, err
	}
	return receive(stream.Recv, (*pb.ForwardResult).GetOutputs, nil)
}

// backward gives the flat gradient of the forward that the tape kept, from the
// gradient of its output.
func (b backbone) backward(
	ctx context.Context, tapeID string, output *pb.TensorSpec, gradient []byte,
) (*pb.BackwardResult, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tape := &pb.TapeGradients{TapeId: tapeID, Gradients: []*pb.TensorSpec{output}}
	header := &pb.BackwardHeader{
		Instance: b.name, Tapes: []*pb.TapeGradients{tape}, ReturnGrads: true,
	}
	stream, err := b.client.Backward(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = sendChunks(gradient, func(chunk *pb.Chunk) error {
		request := &pb.BackwardRequest{Header: header, Chunk: chunk}
		header = nil
		return stream.Send(request)
	})
	if err != nil {
		return nil, nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, nil, err
	}
	return receive(stream.Recv, func(result *pb.BackwardResult) []*pb.TensorSpec {
		return []*pb.TensorSpec{result.GetGrads().GetSpec()}
	}, nil)
}

// getParams reads the selected parameters, or all, into memory if they fit.
func (b backbone) getParams(
	ctx context.Context, selection *pb.Selection, memory []byte,
) (*pb.GetParamsResult, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := b.client.GetParams(
		ctx, &pb.GetParamsRequest{Instance: b.name, Selection: selection})
	if err != nil {
		return nil, nil, err
	}
	return receive(stream.Recv, func(result *pb.GetParamsResult) []*pb.TensorSpec {
		return []*pb.TensorSpec{result.GetSpec()}
	}, memory)
}

// setHead replaces the classifier if the parameters are still of that version, and
// gives the new one.
func (b backbone) setHead(
	ctx context.Context, spec *pb.TensorSpec, values []byte, version *pb.Version,
) (*pb.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	header := &pb.SetParamsHeader{
		Instance:  b.name,
		Selection: head,
		IfVersion: &pb.IfVersion{Uid: version.GetUid(), Params: &version.Params},
		Spec:      spec,
	}
	stream, err := b.client.SetParams(ctx)
	if err != nil {
		return nil, err
	}
	err = sendChunks(values, func(chunk *pb.Chunk) error {
		request := &pb.SetParamsRequest{Header: header, Chunk: chunk}
		header = nil
		return stream.Send(request)
	})
	if err != nil {
		return nil, err
	}
	response, err := stream.CloseAndRecv()
	return response.GetVersion(), err
}
