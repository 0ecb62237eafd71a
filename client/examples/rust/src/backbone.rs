use bytes::Bytes;
use tonic::Status;

use crate::connection::{Connection, within};
use crate::pb::backbone_service_client::BackboneServiceClient;
use crate::pb::{
    BackwardHeader, BackwardResult, ExtractRequest, ExtractResponse, ForwardHeader, ForwardResult,
    GetParamsRequest, GetParamsResult, IfVersion, Selection, SetParamsHeader, TapeGradients,
    TensorSpec, Version,
};
use crate::tensor_stream::{receive, send};

/// The classifier's parameters.
pub fn head() -> Selection {
    Selection { globs: vec!["classifier.*".to_string()], range: None }
}

/// One instance: the calls of this example.
pub struct Backbone {
    pub client: BackboneServiceClient<Connection>,
    pub instance: String,
}

impl Backbone {
    /// Gives features of images, in one message each way.
    pub async fn extract(
        &mut self,
        input: TensorSpec,
        data: Bytes,
    ) -> Result<ExtractResponse, Status> {
        let request = ExtractRequest {
            instance: self.instance.clone(),
            input: Some(input),
            data,
            allow_merge: Some(false),
            ..Default::default()
        };
        within(async { Ok(self.client.extract(request).await?.into_inner()) }).await
    }

    /// Runs a forward; gives its result and the bytes of its outputs. Fills in the
    /// instance's name.
    pub async fn forward(
        &mut self,
        mut header: ForwardHeader,
        pixels: Bytes,
    ) -> Result<(ForwardResult, Vec<u8>), Status> {
        header.instance = self.instance.clone();
        within(async {
            let answer = self.client.forward(send(header, pixels)).await?;
            receive(answer.into_inner(), |result| &result.outputs).await
        })
        .await
    }

    /// Gives the flat gradient of the forward that the tape kept, from the gradient of
    /// its output.
    pub async fn backward(
        &mut self,
        tape_id: String,
        output: TensorSpec,
        gradient: Bytes,
    ) -> Result<(BackwardResult, Vec<u8>), Status> {
        let header = BackwardHeader {
            instance: self.instance.clone(),
            tapes: vec![TapeGradients { tape_id, gradients: vec![output] }],
            return_grads: true,
            ..Default::default()
        };
        within(async {
            let answer = self.client.backward(send(header, gradient)).await?;
            receive(answer.into_inner(), |result| {
                result.grads.as_ref().map_or(&[], |grads| grads.spec.as_slice())
            })
            .await
        })
        .await
    }

    /// Reads the selected parameters, or all.
    pub async fn get_params(
        &mut self,
        selection: Option<Selection>,
    ) -> Result<(GetParamsResult, Vec<u8>), Status> {
        let request =
            GetParamsRequest { instance: self.instance.clone(), selection, ..Default::default() };
        within(async {
            let answer = self.client.get_params(request).await?;
            receive(answer.into_inner(), |result| result.spec.as_slice()).await
        })
        .await
    }

    /// Replaces the classifier if the parameters are still of that version, and gives
    /// the new one.
    pub async fn set_head(
        &mut self,
        spec: TensorSpec,
        values: Bytes,
        version: &Version,
    ) -> Result<Version, Status> {
        let header = SetParamsHeader {
            instance: self.instance.clone(),
            selection: Some(head()),
            if_version: Some(IfVersion {
                uid: version.uid.clone(),
                params: Some(version.params),
                buffers: None,
            }),
            spec: Some(spec),
            ..Default::default()
        };
        within(async {
            let answer = self.client.set_params(send(header, values)).await?;
            Ok(answer.into_inner().version.unwrap_or_default())
        })
        .await
    }
}
