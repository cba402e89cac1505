//! How messages are read and written: as prost does, but bytes that are no message are the caller's mistake, not ours.

use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The codec of the generated code: writes `Out`, reads `In`.
#[derive(Debug, Clone)]
pub struct Codec<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Default for Codec<Out, In> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Out, In> tonic::codec::Codec for Codec<Out, In>
where
    Out: Message + Send + 'static,
    In: Message + Default + Send + 'static,
{
    type Encode = Out;
    type Decode = In;
    type Encoder = ProstEncoder<Out>;
    type Decoder = ProstDecoder<In>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder(PhantomData)
    }
}

/// Reads messages.
#[derive(Debug, Clone)]
pub struct ProstDecoder<In>(PhantomData<In>);

impl<In: Message + Default> Decoder for ProstDecoder<In> {
    type Item = In;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<In>, Status> {
        let read = In::decode(bytes);
        read.map(Some)
            .map_err(|error| Status::invalid_argument(format!("the message cannot be read: {error}")))
    }
}
