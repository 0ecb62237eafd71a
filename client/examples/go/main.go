// Uses a Backboned server from Go.
//
//	example [-ca FILE] [-certificate FILE -key FILE] [-token-file FILE] TARGET
//
// TARGET is host:port or unix:/path. A CA makes the connection one of TLS.
package main

//go:generate sh -c "protoc -I ../../../proto --plugin=$(go tool -n protoc-gen-go) --plugin=$(go tool -n protoc-gen-go-grpc) --go_out=. --go-grpc_out=. ../../../proto/backboned/v1/*.proto"

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "backboned.example/backboned/v1"
)

func main() {
	options, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: example [-ca FILE] [-certificate FILE -key FILE] "+
			"[-token-file FILE] TARGET (host:port or unix:/path)")
		os.Exit(2)
	}
	if err := run(context.Background(), options); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// run makes an instance, uses it, and deletes it in any case.
func run(ctx context.Context, options options) (err error) {
	// What a session left is dropped by the server in the end.
	ctx = metadata.AppendToOutgoingContext(ctx, "backboned-session", rand.Text())
	ctx, err = options.withToken(ctx)
	if err != nil {
		return err
	}
	transport, err := options.transport()
	if err != nil {
		return err
	}
	// For bulk streams: grpc-go begins with windows of 64 KiB, and reads 32 KiB at once.
	// No proxy, which HTTPS_PROXY may name: the other examples use none.
	connection, err := grpc.NewClient(options.target,
		grpc.WithTransportCredentials(transport), grpc.WithNoProxy(),
		grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithReadBufferSize(256<<10))
	if err != nil {
		return err
	}
	defer connection.Close()
	instances := pb.NewInstanceServiceClient(connection)
	if err := describe(ctx, instances); err != nil {
		return err
	}
	name, err := create(ctx, instances)
	if err != nil {
		return err
	}
	defer func() {
		if failure := remove(ctx, instances, name); err == nil {
			err = failure
		}
	}()
	return use(ctx, backbone{pb.NewBackboneServiceClient(connection), name})
}

// describe prints what the server is.
func describe(ctx context.Context, instances pb.InstanceServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	server, err := instances.GetServer(ctx, &pb.GetServerRequest{})
	if err != nil {
		return err
	}
	fmt.Printf("server:     %s, LibTorch %s\n", server.GetVersion(), server.GetTorchVersion())
	return nil
}

// create makes an instance without a name of our choice, and gives its name.
func create(ctx context.Context, instances pb.InstanceServiceClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seed := uint64(0)
	created, err := instances.CreateInstance(ctx, &pb.CreateInstanceRequest{
		Source: &pb.CreateInstanceRequest_Benchmark{Benchmark: "seq-cifar10"},
		Seed:   &seed,
	})
	return created.GetInstance().GetName(), err
}

// remove deletes an instance and its tapes.
func remove(ctx context.Context, instances pb.InstanceServiceClient, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := instances.DeleteInstance(ctx, &pb.DeleteInstanceRequest{Instance: name})
	return err
}

// use goes through the calls; it prints what they gave, and the answers' checksum.
func use(ctx context.Context, net backbone) error {
	images, pixels := batch()
	checksum := sha256.New()

	extracted, err := net.extract(ctx, images, pixels)
	if err != nil {
		return err
	}
	fmt.Printf("features:   [%d, %d]\n", extracted.Output.Shape[0], extracted.Output.Shape[1])
	checksum.Write(extracted.Data)

	_, features, err := net.forward(ctx, &pb.ForwardHeader{
		Outputs: []string{"features"}, Inputs: []*pb.TensorSpec{images},
	}, pixels)
	if err != nil {
		return err
	}
	checksum.Write(features)

	all, params, err := net.getParams(ctx, nil, nil)
	if err != nil {
		return err
	}
	fmt.Printf("parameters: %d of version %d\n", all.Spec.Shape[0], all.Version.Params)
	checksum.Write(params)

	if err := changeHead(ctx, net); err != nil {
		return err
	}

	result, logits, err := net.forward(ctx, &pb.ForwardHeader{
		Outputs: []string{"out"}, Inputs: []*pb.TensorSpec{images}, Training: true, Tape: true,
	}, pixels)
	if err != nil {
		return err
	}
	checksum.Write(logits)

	// The gradient of half the sum of the squared logits is the logits.
	back, grads, err := net.backward(ctx, result.TapeId, result.Outputs[0], logits)
	if err != nil {
		return err
	}
	fmt.Printf("gradients:  %d\n", back.Grads.Spec.Shape[0])
	checksum.Write(grads)

	fmt.Printf("sha256:     %x\n", checksum.Sum(nil))
	return nil
}

// batch is the input: eight images of made-up pixels.
func batch() (*pb.TensorSpec, []byte) {
	spec := &pb.TensorSpec{Dtype: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{8, 3, 32, 32}}
	pixels := make([]byte, sizeBytes(spec))
	for i := range pixels {
		pixels[i] = byte(i * 7919)
	}
	return spec, pixels
}

// changeHead halves the classifier's parameters, and is refused when it writes them a
// second time onto the version that it read.
func changeHead(ctx context.Context, net backbone) error {
	read, values, err := net.getParams(ctx, head, nil)
	if err != nil {
		return err
	}
	for at := 0; at < len(values); at += 4 {
		value := math.Float32frombits(binary.LittleEndian.Uint32(values[at:]))
		binary.LittleEndian.PutUint32(values[at:], math.Float32bits(value/2))
	}
	version, err := net.setHead(ctx, read.Spec, values, read.Version)
	if err != nil {
		return err
	}
	fmt.Printf("head:       %d halved, version %d\n", read.Spec.Shape[0], version.Params)

	_, err = net.setHead(ctx, read.Spec, values, read.Version)
	if err == nil {
		return errors.New("a stale version was accepted")
	}
	if reasonOf(err) != pb.ErrorReason_ERROR_REASON_STALE_VERSION {
		return err
	}
	fmt.Printf("again:      refused, %s\n", reasonOf(err))
	return nil
}

// reasonOf is the machine-readable reason of a call that failed.
func reasonOf(err error) pb.ErrorReason {
	for _, detail := range status.Convert(err).Details() {
		if detail, ok := detail.(*pb.ErrorDetail); ok {
			return detail.GetReason()
		}
	}
	return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
}
