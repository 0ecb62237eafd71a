package main

import (
	"fmt"
	"io"

	pb "backboned.example/backboned/v1"
)

// chunkBytes is how much data a message carries; the server takes at most 2 MiB.
const chunkBytes = 1 << 20

var elementBytes = map[pb.DataType]int64{
	pb.DataType_DATA_TYPE_FLOAT32:  4,
	pb.DataType_DATA_TYPE_FLOAT64:  8,
	pb.DataType_DATA_TYPE_FLOAT16:  2,
	pb.DataType_DATA_TYPE_BFLOAT16: 2,
	pb.DataType_DATA_TYPE_UINT8:    1,
	pb.DataType_DATA_TYPE_INT64:    8,
}

// sendChunks gives the chunks of data to send, which puts each into a message: the
// first one, which may be empty, into the one with the header.
//
// It stops early without an error if the call is over: receiving tells why.
func sendChunks(data []byte, send func(*pb.Chunk) error) error {
	for begin := 0; begin == 0 || begin < len(data); begin += chunkBytes {
		end := min(begin+chunkBytes, len(data))
		err := send(&pb.Chunk{Offset: int64(begin), Data: data[begin:end]})
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// message is one of a streamed answer's, whose header is an H.
type message[H any] interface {
	GetHeader() H
	GetChunk() *pb.Chunk
}

// receive reads an answer to its end: the header, and the bytes of the tensors that
// specs says the header announces, back to back. They go into memory, if they fit:
// fresh memory costs a fifth of the time of a large answer. It may be nil.
func receive[H comparable, M message[H]](
	recv func() (M, error), specs func(H) []*pb.TensorSpec, memory []byte,
) (H, []byte, error) {
	var header, none H
	data := memory[:0]
	var expected int64
	for {
		m, err := recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return none, nil, err
		}
		if m.GetHeader() != none {
			header = m.GetHeader()
			for _, spec := range specs(header) {
				expected += sizeBytes(spec)
			}
			if int64(cap(data)) < expected {
				data = make([]byte, 0, expected)
			}
		}
		chunk, at := m.GetChunk(), int64(len(data))
		size := int64(len(chunk.GetData()))
		if size > 0 && chunk.GetOffset() != at {
			return none, nil, fmt.Errorf(
				"a chunk starts at byte %d, expected byte %d", chunk.GetOffset(), at)
		}
		if at+size > expected {
			return none, nil, fmt.Errorf("a chunk ends at byte %d of %d", at+size, expected)
		}
		data = append(data, chunk.GetData()...)
	}
	if header == none || int64(len(data)) < expected {
		return none, nil, fmt.Errorf("the answer ends at byte %d of %d", len(data), expected)
	}
	return header, data, nil
}

// sizeBytes is the number of bytes of a tensor.
func sizeBytes(spec *pb.TensorSpec) int64 {
	size := elementBytes[spec.GetDtype()]
	for _, dimension := range spec.GetShape() {
		size *= dimension
	}
	return size
}
